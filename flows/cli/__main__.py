"""`python -m flows.cli`."""

from flows.cli.start import main

if __name__ == "__main__":
    main()
