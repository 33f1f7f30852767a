#!/usr/bin/env python3
"""Server D, the back end for the double rooms: double.txt says how many there are, backend.py what it does."""

import sys

from dormitory import backend

LETTER = "D"
PORT = 22000

if __name__ == "__main__":
    sys.exit(backend.main(LETTER, PORT))
