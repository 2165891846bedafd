"""`python -m millhand` is `millhand`."""

from millhand.cli.main import main

if __name__ == "__main__":
    main()
