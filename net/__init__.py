"""What every server stands on: accepting, connections, output that never blocks the sender, the log, the process, TLS.

Every program imports this package first, so the check of Python's version stands here alone.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
