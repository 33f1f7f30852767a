#!/usr/bin/env python3
"""Server D, the back end for the double rooms in double.txt; dormitory/back_end.py runs it."""

import sys

from dormitory import back_end

if __name__ == "__main__":
    sys.exit(back_end.main(letter="D", port=22000))
