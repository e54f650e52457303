"""`python -m simdist`: the command line, where its script is not on the path."""

from simdist.cli import main

if __name__ == "__main__":
    main()
