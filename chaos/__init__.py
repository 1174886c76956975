"""The chaos suite: real servers, processes and faults, and a proof from what was recorded."""
