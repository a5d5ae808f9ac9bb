"""adapter: the file in which hints outlive the process."""

from __future__ import annotations

from ondol.models.estimates_file import EstimatesFile

__all__ = ["HintsFile"]


class HintsFile(EstimatesFile):
    """A JSON file, replaced as a whole, readable by its owner alone; the last process that writes wins."""

    def set_aside(self) -> None:
        """Rename the file, which is damaged, to end in ``.damaged``; one of that name is replaced.

        Raises:
            OSError: it cannot be renamed.
        """
        self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
