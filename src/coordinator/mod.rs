//! The shell around `groups`: one task per live group; persist, then reply.
