//! HTTP: the WebSocket upgrade, health, metrics and the page. The only place that knows actix-web's routing.

pub mod access;

pub mod admin;

pub mod auth;

pub mod origin;

pub mod tls;

pub mod admission;

pub mod client_address;

pub mod websocket;

pub mod assets;

pub mod status;

pub mod health;

pub mod quality;

pub mod server;

mod clients;

mod connection;

mod inbound;

mod reset;

mod when_woken;
