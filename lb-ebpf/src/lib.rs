//! lb's XDP programs. [`fast`] has the common ways of a packet in one function, and goes on to ([`next`]) the balancer, one module a step: [`service`], [`admit`], [`select`], [`forward`],
//! [`nexthop`], [`count`]; what is not for a service goes to [`reply`], [`error`] or [`fragment`], full nat to a program of its own, [`fullnat`]. [`maps`] and [`config`] are what the controller
//! writes. What a packet is and what is done to it is decided by the pure functions of lb-common.
//!
//! `unsafe` stands only in [`packet`], [`maps`] and the modules that call helpers of the kernel.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod admit;
pub mod answer;
pub mod atomic;
pub mod balance;
pub mod capture;
pub mod challenge;
pub mod config;
pub mod connection;
pub mod count;
pub mod error;
pub mod extensions;
pub mod fast;
pub mod forward;
pub mod fragment;
pub mod fullnat;
pub mod gue;
pub mod handshake;
pub mod limit;
pub mod load;
pub mod lpm;
pub mod maps;
pub mod mss;
pub mod next;
pub mod nexthop;
pub mod observe;
pub mod openings;
pub mod options;
pub mod packet;
pub mod persist;
pub mod pin;
pub mod ports;
pub mod quic;
pub mod reply;
pub mod sample;
pub mod scratch;
pub mod select;
pub mod service;
pub mod spread;
pub mod sum;
pub mod trace;
pub mod track;
pub mod unserved;
pub mod verdict;
pub mod vlan;
pub mod way_back;
