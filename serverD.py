#!/usr/bin/env python3
"""Server D, the back end for the double rooms in double.txt; dormitory/backend.py says what it does."""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

from dormitory import backend

if __name__ == "__main__":
    sys.exit(backend.main(letter="D", port=22000))
