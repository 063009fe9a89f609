//! Harness of the whole-machine tests and the conformance runners.
