"""`python -m sprintnet` is the command `sprintnet`."""

import sys

from sprintnet.cli.main import main

sys.exit(main())
