#!/usr/bin/env python3
"""Server U, the back end for the suite rooms: inventory in suite.txt, reservations in suite.db, work in backend.py."""

import sys

import backend

LETTER = "U"
PORT = 23000

if __name__ == "__main__":
    sys.exit(backend.main(LETTER, PORT))
