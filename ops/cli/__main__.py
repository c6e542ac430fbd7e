"""``python -m ops.cli`` is `packstream`."""

from ops.cli import main

if __name__ == "__main__":
    main(prog_name="packstream")
