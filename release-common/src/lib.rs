//! What the kernel programs and user space share: map layouts and all pure packet logic.
#![no_std]
