#!/usr/bin/env python3
"""Server U, the back end for the suites in suite.txt; dormitory/back_end.py runs it."""

import sys

from dormitory import back_end

if __name__ == "__main__":
    sys.exit(back_end.main(letter="U", port=23000))
