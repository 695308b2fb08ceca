//! Reading and writing over real sockets.
