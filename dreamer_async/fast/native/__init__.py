"""What CPUs compute with, in C++ (`src/`); see `backend`."""
