#!/usr/bin/env python3
"""Server U, the back end for the suite rooms: suite.txt says how many there are, backend.py what it does."""

import sys

from dormitory import backend

LETTER = "U"
PORT = 23000

if __name__ == "__main__":
    sys.exit(backend.main(LETTER, PORT))
