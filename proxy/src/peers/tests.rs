//! Replicas that meet over loopback, and strangers at their port.
