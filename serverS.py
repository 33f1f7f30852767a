#!/usr/bin/env python3
"""Server S, the back end for the single rooms: inventory in single.txt, reservations in single.db, work in backend.py."""

import sys

import backend

LETTER = "S"
PORT = 21000

if __name__ == "__main__":
    sys.exit(backend.main(LETTER, PORT))
