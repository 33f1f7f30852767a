#!/usr/bin/env python3
"""Server S, the back end for the single rooms in single.txt; dormitory/back_end.py runs it."""

import sys

from dormitory import back_end

if __name__ == "__main__":
    sys.exit(back_end.main(letter="S", port=21000))
