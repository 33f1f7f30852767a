#!/usr/bin/env python3
"""Server S, the back end for the single rooms: single.txt says how many there are, backend.py what it does."""

import sys

from dormitory import backend

LETTER = "S"
PORT = 21000

if __name__ == "__main__":
    sys.exit(backend.main(LETTER, PORT))
