"""`python -m colpali_integrations.cli`, for where the script is not on the path."""

from colpali_integrations.cli import main

main()
