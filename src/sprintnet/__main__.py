"""`python -m sprintnet` is the command `sprintnet`."""

import sys

from sprintnet.cli import main

sys.exit(main())
