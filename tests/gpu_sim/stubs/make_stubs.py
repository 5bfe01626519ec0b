"""Build the libraries that the CUDA build of PyTorch asks for.

usage: make_stubs.py SITE HEADERS OUT
SITE holds the unpacked `torch`, HEADERS has driver_types.h, the libraries go to OUT.

Which functions are needed, and under which version of its symbols each library has to offer them,
is read from the unpacked libraries. What the .cpp files here do not define is filled in with
functions that do nothing. A library with neither is made empty, as it is only linked against.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WITHOUT_VERSION = {
    "nccl": "libnccl.so.2",
    "nvshmem": "libnvshmem_host.so.3",
    "cuFile": "libcufile.so.0",
    "cusparseLt": "libcusparseLt.so.0",
}
"""Libraries by how the names of their functions begin, where those carry no library's version."""
BY_HAND = {
    "libcudart.so.13": "cudart",
    "libcublas.so.13": "cublas",
    "libcublasLt.so.13": "cublasLt",
    "libcudnn.so.9": "cudnn",
    "libcuda.so.1": "cuda",
    "libnvidia-ml.so.1": "nvidia-ml",
}
"""Libraries of which a part is written by hand, first the one that the others are linked to."""
OF_NVIDIA = re.compile(r"lib(cu|nccl|nvrtc|nvshmem_host|nvidia)[\w-]*\.so\.\d+$")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(site: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return the functions to offer by library, and the version of its symbols where it has one."""
    binaries = [str(p) for p in sorted((site / "torch/lib").glob("*.so*"))]
    functions: dict[str, set[str]] = {}
    versions: dict[str, str] = {}
    for name in re.findall(r"\[(.*?)\]", output("readelf", "-d", *binaries)):
        if OF_NVIDIA.match(name):
            functions[name] = set()
    symbols = output("nm", "-D", "--undefined-only", "--with-symbol-versions", *binaries)
    for name, version in re.findall(r"^\s+[Uw] ([A-Za-z_]\w*)(?:@+(\S+))?", symbols, re.M):
        library = version if version.startswith("lib") else ""
        if not library:
            begins = (lib for start, lib in WITHOUT_VERSION.items() if name.startswith(start))
            library = next(begins, "libcuda.so.1" if re.match(r"cu[A-Z]", name) else "")
        if OF_NVIDIA.match(library):
            functions.setdefault(library, set()).add(name)
            if version:
                versions[library] = version
    # Looked up by name while running: by PyTorch, and by the launcher that Triton compiles.
    functions["libcuda.so.1"] |= set((HERE / "driver_names.txt").read_text().split())
    functions.setdefault("libnvidia-ml.so.1", set())
    return functions, versions


def filler(library: str, name: str) -> str:
    """Return a function that succeeds without doing anything; work becomes a launch."""
    if library == "libcudart.so.13":
        return f'X E {name}(){{say("STUB {name}");return cudaSuccess;}}'
    if library == "libcublas.so.13" and not name.startswith(("cublasSet", "cublasGet")):
        return f'X int {name}(H*h){{fake_launch(h->s,"{name}");return 0;}}'
    if library == "libcudnn.so.9":
        if name.startswith("cudnnCreate"):
            return f"X int {name}(void**d){{*d=calloc(1,4096);return 0;}}"
        if name.startswith("cudnnDestroy"):
            return f"X int {name}(void*d){{free(d);return 0;}}"
        return f'X int {name}(){{if(getenv("FAKE_DEBUG"))fprintf(stderr,"{name}\\n");return 0;}}'
    if "String" in name:
        return f'X long {name}(){{return (long)"fake";}}'
    # A profiler that fails is left alone.
    return f"X long {name}(){{return {int('cupti' in library)};}}"


def build(library: str, names: set[str], version: str, headers: Path, out: Path) -> None:
    """Compile one library."""
    made = out / "src"
    stem = BY_HAND.get(library)
    if stem:
        source = HERE / f"{stem}.cpp"
        # A definition by hand follows the name of a type; calls do not.
        text = "".join(path.read_text() for path in (source, *sorted(HERE.glob("*.h"))))
        names = {n for n in names if not re.search(rf"^X [^;{{}}=]*\b{n}\(", text, re.M)}
    else:
        stem, source = library, made / f"{library}.cpp"
    code = "\n".join(filler(library, name) for name in sorted(names)) + "\n"
    if library in BY_HAND:
        (made / f"{stem}_rest.inc").write_text(code)
    else:
        source.write_text('#include "stub.h"\n' + code)
    command = ["g++", "-O1", "-std=c++17", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}"]
    command += ["-I", str(HERE), "-I", str(made), "-I", str(headers), str(source)]
    if version:
        script = made / f"{library}.map"
        script.write_text(f"{version} {{ global: *; }};\n")
        command.append(f"-Wl,--version-script={script}")
    command += ["-o", str(out / library)]
    if library != "libcudart.so.13":
        command += ["-L", str(out), "-l:libcudart.so.13"]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{library} does not build: {done.stderr[:800]}")


def main() -> None:
    site, headers, out = map(Path, sys.argv[1:])
    (out / "src").mkdir(parents=True, exist_ok=True)
    functions, versions = needed(site)
    order = [*BY_HAND, *sorted(functions.keys() - BY_HAND.keys())]
    for library in order:
        build(library, functions.get(library, set()), versions.get(library, ""), headers, out)
    link = out / "libcuda.so"  # Triton links its launcher with -lcuda
    link.unlink(missing_ok=True)
    link.symlink_to("libcuda.so.1")
    print(f"{len(order)} libraries, {sum(map(len, functions.values()))} functions asked for")


if __name__ == "__main__":
    main()
