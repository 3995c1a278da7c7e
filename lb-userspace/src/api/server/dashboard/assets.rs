//! The files of the page, as they are in the repository.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
};

use axum::{
    Json,
    http::{
        HeaderMap, Method, StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};

use crate::api::types::{Failure, FailureKind};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type, content.
type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($($path:literal $kind:ident $file:literal,)+) => {
        const ASSETS: &[Asset] =
            &[$(($path, $kind, include_str!(concat!("../../../dashboard/", $file)))),+];
    };
}

assets! {
    "/" HTML "index.html",
    "/style.css" CSS "style.css",
    "/icon.svg" ICON "icon.svg",
    "/app.js" SCRIPT "app.js",
    "/api.js" SCRIPT "api.js",
    "/chart.js" SCRIPT "chart.js",
    "/dom.js" SCRIPT "dom.js",
    "/format.js" SCRIPT "format.js",
    "/grid.js" SCRIPT "grid.js",
    "/keys.js" SCRIPT "keys.js",
    "/store.js" SCRIPT "store.js",
    "/views/backend.js" SCRIPT "views/backend.js",
    "/views/events.js" SCRIPT "views/events.js",
    "/views/node.js" SCRIPT "views/node.js",
    "/views/parts.js" SCRIPT "views/parts.js",
    "/views/service.js" SCRIPT "views/service.js",
    "/views/services.js" SCRIPT "views/services.js",
}

const ICON: &str = "image/svg+xml";

/// A file, or 404. Browsers ask each time whether theirs is still the right one.
pub async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let Some((_, kind, content)) = ASSETS.iter().find(|(path, ..)| *path == uri.path()) else {
        let error = format!("there is no `{}` here", uri.path());
        return Failure::new(FailureKind::NotFound, error).into_response();
    };
    if method != Method::GET && method != Method::HEAD {
        let failure = Failure::new(FailureKind::Invalid, "this path is only for GET");
        return (StatusCode::METHOD_NOT_ALLOWED, Json(failure)).into_response();
    }
    let tag = tag(content);
    let head = [(CACHE_CONTROL, "no-cache"), (ETAG, tag.as_str())];
    if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, [(CONTENT_TYPE, *kind)], *content).into_response()
}

/// Another one for another content.
fn tag(content: &str) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served_and_each_asks_for_files_that_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard");
        let mut files = BTreeSet::new();
        for directory in ["", "views"] {
            for entry in fs::read_dir(root.join(directory)).unwrap().flatten() {
                if entry.path().is_file() {
                    let path = Path::new("/").join(directory).join(entry.file_name());
                    files.insert(path.to_str().unwrap().replace("/index.html", "/"));
                }
            }
        }
        let served: BTreeSet<String> = ASSETS.iter().map(|(path, ..)| (*path).to_owned()).collect();
        assert_eq!(served, files);
        for (path, _, content) in ASSETS {
            let imports = content.split(" from \"").skip(1).map(|rest| rest.split('"').next());
            for import in imports.flatten() {
                let name = import.trim_start_matches("./").trim_start_matches("../");
                let inside = path.starts_with("/views/") && import.starts_with("./");
                let wanted = format!("/{}{name}", if inside { "views/" } else { "" });
                assert!(served.contains(&wanted), "{path} imports {import}");
            }
        }
    }

    #[test]
    fn nothing_needs_another_server_or_inline_code() {
        for (path, _, content) in ASSETS {
            for foreign in
                ["http://", "https://", "src=\"//", "url(", "@import", "innerHTML", "eval("]
            {
                let namespace = content.replace("http://www.w3.org/", "");
                assert!(!namespace.contains(foreign), "{path} has {foreign}");
            }
            if path == &"/" {
                assert!(!content.contains("style=") && !content.contains(" onclick"), "{path}");
                assert_eq!(content.matches("<script").count(), 1, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn a_known_file_is_not_sent_again() {
        let uri = Uri::from_static("/app.js");
        let first = serve(Method::GET, uri.clone(), HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let headers = [(IF_NONE_MATCH, first.headers()[ETAG].clone())].into_iter().collect();
        assert_eq!(serve(Method::GET, uri, headers).await.status(), StatusCode::NOT_MODIFIED);
        let none = serve(Method::GET, Uri::from_static("/../Cargo.toml"), HeaderMap::new()).await;
        assert_eq!(none.status(), StatusCode::NOT_FOUND);
        let post = serve(Method::POST, Uri::from_static("/"), HeaderMap::new()).await;
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
