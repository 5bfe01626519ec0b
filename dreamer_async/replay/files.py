"""The two files of a replay, opened and closed as one: the ring, and the cache of its latents."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from dreamer_async.replay.layout import RingSpec, check_capacity, ring_bytes
from dreamer_async.replay.ring import Record, RingFile, RingMismatch, check_space

MAX_STEPS = 1 << 48
"""Steps of an environment that no run reaches; a larger cursor is damaged."""


class ReplayFiles:
    """A ring and its latents. Each names the other, so that foreign latents are recognised."""

    def __init__(
        self,
        spec: RingSpec,
        ring: RingFile,
        latents: RingFile | Path,
        *,
        readonly: bool = False,
        unclaimed: tuple[Path, ...] = (),
    ) -> None:
        """Take over open files; use `create` or `open`.

        In place of latents that have to be made anew stands their path, until `claim`.
        `unclaimed` files are removed by `close` unless `claim` was called before.
        """
        self.ring = ring
        self.latents = latents
        self.readonly = readonly
        self.generation = ring.record.generation
        """How many writers have claimed the ring so far."""
        self._spec = spec
        self._unclaimed = unclaimed

    @classmethod
    def create(cls, path: Path, latents_path: Path, spec: RingSpec) -> ReplayFiles:
        """Allocate both files; until `claim` they are gone again after `close`.

        Raises ReplaySpaceError, with nothing left behind, if they do not fit the disk.
        """
        check_capacity(spec)
        if not path.exists():
            # Latents that have lost their ring are worth nothing and take room.
            latents_path.unlink(missing_ok=True)
        if os.stat(path.parent).st_dev == os.stat(latents_path.parent).st_dev:
            check_space(path, sum(ring_bytes(spec)))
        ring_id, latents_id = uuid.uuid4().hex, uuid.uuid4().hex
        ring = RingFile.create(path, spec.ring_file_spec(ring_id), Record(1, partner=latents_id))
        try:
            latents = _fresh_latents(latents_path, spec, ring_id, latents_id)
        except BaseException:
            ring.close()
            path.unlink()
            raise
        return cls(spec, ring, latents, unclaimed=(path, latents_path))

    @classmethod
    def open(
        cls, path: Path, latents_path: Path, spec: RingSpec, *, readonly: bool = False
    ) -> ReplayFiles:
        """Map what an earlier process left behind; nothing on the disk is changed.

        Raises RingMismatch with the reason if the ring is not the one that `spec` describes, with
        `readonly` also if the latents are not those of the ring.
        """
        check_capacity(spec)
        ring = RingFile.open(path, spec.ring_file_spec(), readonly=readonly)
        try:
            _check_cursors(ring)
            latents = _open_latents(latents_path, spec, ring, readonly=readonly)
        except BaseException:
            ring.close()
            raise
        return cls(spec, ring, latents, readonly=readonly)

    def claim(self) -> None:
        """Become the writer: raise the generation, replace latents that do not fit the ring.

        Of files that were just created this process is the writer already.
        """
        assert not self.readonly
        if self._unclaimed:
            self._unclaimed = ()
            return
        if isinstance(self.latents, Path):
            self.latents.unlink(missing_ok=True)
            ring_id, identity = self.ring.spec.identity, uuid.uuid4().hex
            self.latents = _fresh_latents(self.latents, self._spec, ring_id, identity)
        self.generation += 1
        self.ring.write_record(Record(self.generation, partner=self.latents.spec.identity))

    def close(self) -> None:
        """Unmap both, and remove what nobody claimed; may be called twice."""
        self.ring.close()
        if isinstance(self.latents, RingFile):
            self.latents.close()
        for path in self._unclaimed:
            path.unlink(missing_ok=True)
        self._unclaimed = ()


def _check_cursors(ring: RingFile) -> None:
    """Refuse cursors that no writer leaves behind, even if it is killed."""
    reserved, head = ring.arrays["cursors"]
    ahead = reserved - head
    if (head < 0).any() or (head > MAX_STEPS).any() or (ahead < 0).any() or (ahead > 1).any():
        raise RingMismatch(
            f"the cursors of {ring.path} are damaged: {head.tolist()} steps are complete and "
            f"{reserved.tolist()} begun"
        )


def _fresh_latents(path: Path, spec: RingSpec, ring_id: str, identity: str) -> RingFile:
    """Make an empty latent file that belongs to the ring `ring_id`."""
    return RingFile.create(path, spec.latents_file_spec(identity), Record(partner=ring_id))


def _open_latents(path: Path, spec: RingSpec, ring: RingFile, *, readonly: bool) -> RingFile | Path:
    """Open the ring's latent file; its path for a writer if it is missing or belongs elsewhere."""
    ring_id, wanted = ring.spec.identity, ring.record.partner
    try:
        latents = RingFile.open(path, spec.latents_file_spec(), readonly=readonly)
        if latents.record.partner == ring_id and latents.spec.identity == wanted:
            return latents
        latents.close()
        raise RingMismatch(f"{path} holds the latents of another replay")
    except (FileNotFoundError, RingMismatch):
        if readonly:
            raise
        return path
