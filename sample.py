"""`python sample.py …` is `longgen generate …`."""

from longgen.__main__ import main

if __name__ == "__main__":
    main(command="generate")
