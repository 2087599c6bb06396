"""`python -m palam` is the command `palam`."""

from palam.cli.main import main

if __name__ == "__main__":
    main()
