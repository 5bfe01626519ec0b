"""What draws without a screen: a GPU, or Mesa's renderer in software (llvmpipe).

Ask in a process of your own (`needs.require_drawing`): a driver that fails ends its process.
"""

from __future__ import annotations

import ctypes
import os

_DEVICES = 16
"""Most devices that envpool looks at, too."""
_PLATFORM_DEVICE = 0x313F
_EXTENSIONS = 0x3055
_SOFTWARE = b"EGL_MESA_device_software"
"""What the extension of that name says of a device."""


def draws_in_software() -> bool:
    """Whether a processor draws; True as well where EGL does not tell.

    envpool draws with the first device that can be initialized, or with number
    MUJOCO_EGL_DEVICE_ID, and so we look at that one. OSError without libEGL.
    """
    egl = ctypes.CDLL("libEGL.so.1")
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    pointer, number = ctypes.c_void_p, ctypes.c_int
    query = _extension(
        egl, "eglQueryDevicesEXT", number, number, ctypes.POINTER(pointer), ctypes.POINTER(number)
    )
    string = _extension(egl, "eglQueryDeviceStringEXT", ctypes.c_char_p, pointer, number)
    display = _extension(egl, "eglGetPlatformDisplayEXT", pointer, number, pointer, pointer)
    devices, count = (pointer * _DEVICES)(), number()
    if not (query and string and display and query(_DEVICES, devices, ctypes.byref(count))):
        return True
    found = list(devices)[: count.value]
    if chosen := os.environ.get("MUJOCO_EGL_DEVICE_ID"):
        found = found[int(chosen) : int(chosen) + 1]
    initialize = ctypes.CFUNCTYPE(number, pointer, pointer, pointer)(("eglInitialize", egl))
    for device in found:
        if initialize(display(_PLATFORM_DEVICE, device, None), None, None):
            return _SOFTWARE in (string(device, _EXTENSIONS) or b"").split()
    return True


def _extension(egl: ctypes.CDLL, name: str, *types: type) -> ctypes._FuncPointer | None:
    """A function of EGL that may be missing; `types` are those of its result and arguments."""
    address = egl.eglGetProcAddress(name.encode())
    return ctypes.CFUNCTYPE(*types)(address) if address else None
