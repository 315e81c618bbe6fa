//! The page, embedded at build time. Without it (no Node at build time) a page that says how to get it.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};
use actix_web::{HttpRequest, HttpResponse};
use rust_embed::RustEmbed;

/// `ui/dist` as it was when the binary was built.
#[derive(RustEmbed)]
#[folder = "ui/dist"]
struct Dist;

const ABSENT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>DashStream</title>\
<body style=\"font-family:sans-serif;max-width:40rem;margin:4rem auto\"><h1>DashStream runs, its page is not built in</h1>\
<p>Build the page with Node 20 or newer, then the binary again:</p>\
<pre>npm --prefix ui install &amp;&amp; npm --prefix ui run build\ncargo build --release</pre>\
<p>The service itself is complete: <a href=\"/health\">/health</a>, <a href=\"/metrics\">/metrics</a>, \
WebSocket at <code>/ws</code>.</p></body></html>";

const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self' 'unsafe-inline'; \
img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'";

/// `GET` of anything that is no other route.
pub async fn page(request: HttpRequest) -> HttpResponse {
    let path = request.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    match Dist::get(path) {
        Some(file) => {
            // Names below assets/ carry a hash of their content.
            let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
            HttpResponse::Ok()
                .insert_header((CONTENT_TYPE, file.metadata.mimetype()))
                .insert_header((CACHE_CONTROL, cache))
                .insert_header((CONTENT_SECURITY_POLICY, POLICY))
                .insert_header((HeaderName::from_static("x-content-type-options"), "nosniff"))
                .body(file.data.into_owned())
        }
        None if path == "index.html" => HttpResponse::Ok().content_type("text/html; charset=utf-8").body(ABSENT),
        None => HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body("not found\n"),
    }
}
