//! The server's address as people write it, made into one form.

use reqwest::Url;

use super::Error;

/// `text` as a base address that ends in `/v1`. Accepts it with and without `/v1`, with trailing
/// slashes, and with the full path of an endpoint pasted from somewhere.
pub fn normalise(text: &str) -> Result<Url, Error> {
    let refuse = |why: &str| Error::BadUrl { url: without_userinfo(text), why: why.to_owned() };
    let text = text.trim();
    if !text.contains("://") {
        return Err(refuse(&format!("it has no scheme; write http://{text}")));
    }
    let mut url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("only http:// and https:// are understood, or the word `rehearsal`"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "it holds a credential; put the key into `model.api_key_env`'s variable",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must end with the path; remove what follows `?` or `#`"));
    }
    let mut path = url.path().trim_end_matches('/');
    for tail in ["/chat/completions", "/completions", "/models"] {
        path = path.strip_suffix(tail).unwrap_or(path);
    }
    let path = path.trim_end_matches('/');
    let path = if path.ends_with("/v1") { path.to_owned() } else { format!("{path}/v1") };
    url.set_path(&path);
    Ok(url)
}

/// The server's own root, where its native endpoints are: the base address without `/v1`.
pub fn root(base: &Url) -> Url {
    let mut root = base.clone();
    let path = root.path().trim_end_matches("/v1").to_owned();
    root.set_path(&path);
    root
}

/// `base` with `path` (which starts with a slash) behind it.
pub fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let joined = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&joined);
    url
}

pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A refused address is shown in messages, and what stands before its `@` may be a password.
fn without_userinfo(text: &str) -> String {
    let shown = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}…{}", &text[..scheme + 3], &text[at..])
        }
        _ => text.to_owned(),
    };
    crate::text::one_line(&shown, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_gives_one_address() {
        for spelling in [
            "http://localhost:8000",
            "http://localhost:8000/",
            "http://localhost:8000/v1",
            " http://localhost:8000/v1/ ",
            "http://LOCALHOST:8000/v1/chat/completions",
            "http://localhost:8000/v1/models",
        ] {
            let url = normalise(spelling).expect(spelling);
            assert_eq!(url.as_str(), "http://localhost:8000/v1", "{spelling}");
        }
        let nested = normalise("https://box.lan/serve/a/").expect("a path of its own");
        assert_eq!(nested.as_str(), "https://box.lan/serve/a/v1");
        assert_eq!(join(&root(&nested), "/api/ps").as_str(), "https://box.lan/serve/a/api/ps");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (spelling, reason) in [
            ("localhost:8000", "http://localhost:8000"),
            ("ftp://host/v1", "only http:// and https://"),
            ("file:///etc/passwd", "only http:// and https://"),
            ("http://", "empty host"),
            ("http://me:hunter2@host/v1", "api_key_env"),
            ("http://host/v1?key=1", "`?`"),
            ("", "no scheme"),
        ] {
            let error = normalise(spelling).expect_err(spelling).to_string();
            assert!(error.contains(reason), "{spelling}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
