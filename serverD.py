#!/usr/bin/env python3
"""Server D, the back end for the double rooms: inventory in double.txt, reservations in double.db, work in backend.py."""

import sys

import backend

LETTER = "D"
PORT = 22000

if __name__ == "__main__":
    sys.exit(backend.main(LETTER, PORT))
