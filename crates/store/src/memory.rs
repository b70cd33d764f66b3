//! The backend of tests and simulations: the same contract, in memory.
