//! The dashboard as a person has it: in Chromium, by mouse, by keyboard alone and by what a screen
//! reader is told. Its files come from a real gateway; most tests write what the admin API says.

mod attacks;
mod cache;
mod config;
mod files;
mod identity;
mod look;
mod pages;
mod questions;
mod queues;
mod real;
mod shell;
mod stage;
mod store;
mod upstreams;
