"""The command that lists datasets."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Datasets"]


@dataclass(frozen=True)
class Datasets:
    """List the datasets that have a name.

    Any other set of TUDataset is called tu:NAME.
    """

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.data import data_dir, datasets
        from jgd.report.table import listing

        found = datasets()
        rows = [
            [d.name, d.kind, str(d.size), str(d.classes), "yes" if d.present else "no", d.licence]
            for d in found
        ]
        listing(["name", "kind", "size", "classes", "present", "licence"], rows, left=("kind",))
        print("\nsize is the number of nodes, graphs, images or texts. Sources:")
        for source in dict.fromkeys(d.source for d in found):
            names = [d.name for d in found if d.source == source]
            print(f"  {names[0]}{' ...' if len(names) > 1 else ''}: {source}")
        print(f"files are looked for in {data_dir()} (JGD_DATA_DIR), and downloaded where they are missing")
        return 0
