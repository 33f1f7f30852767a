"""What demo.py plays: the harness that runs programs, the scenarios, and the report."""
