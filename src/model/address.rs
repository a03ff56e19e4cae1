//! The server's address as people write it, made into one form.

use reqwest::Url;

use super::Error;

/// Where the API of the server at `text` may be, the likeliest first. Accepts the address with and
/// without `/v1`, with trailing slashes, and with the full path of an endpoint pasted from
/// somewhere. Some servers have their API at `/v3` or `/api`, and some at their root.
pub fn candidates(text: &str) -> Result<Vec<Url>, Error> {
    let refuse = |why: &str| Error::BadUrl { url: without_userinfo(text), why: why.to_owned() };
    let text = text.trim();
    if !text.contains("://") {
        return Err(refuse(&format!("it has no scheme; write http://{text}")));
    }
    let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("only http:// and https:// are understood, or the word `rehearsal`"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "it holds a credential; put a key into `model.api_key_env`'s variable, and a name with \
             a password into one of `model.headers`",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("it must end with the path; remove what follows `?` or `#`"));
    }
    let whole = url.path().trim_end_matches('/');
    let mut path = whole;
    for tail in ["/chat/completions", "/completions", "/models"] {
        path = path.strip_suffix(tail).unwrap_or(path);
    }
    let path = path.trim_end_matches('/');
    let below = format!("{path}/v1");
    let mut paths = match path {
        _ if path.ends_with("/v1") => vec![path],
        // An endpoint's own path says where it is.
        _ if path != whole => vec![path, &below],
        _ => vec![&below, path],
    };
    // The servers' own APIs, which people take for this one.
    if matches!(path, "/api" | "/api/v0" | "/api/v1") {
        paths.push("/v1");
    }
    let at = |path: &str| {
        let mut url = url.clone();
        url.set_path(path);
        url
    };
    Ok(paths.into_iter().map(at).collect())
}

/// The server's own root, where its native endpoints are: the base address without `/v1`, or
/// whichever version it is.
pub fn root(base: &Url) -> Url {
    let mut root = base.clone();
    let path = root.path().trim_end_matches('/');
    let path = match path.rsplit_once('/') {
        Some((front, last)) if is_version(last) => front.to_owned(),
        _ => path.to_owned(),
    };
    root.set_path(&path);
    root
}

/// Whether a part of a path is a version, such as `v1`.
pub fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
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
    // `0.0.0.0` is where a server listens that is then asked by the same name.
    let is_own = |address: std::net::IpAddr| address.is_loopback() || address.is_unspecified();
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(is_own)
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

    fn first(text: &str) -> Result<Url, Error> {
        candidates(text).map(|mut urls| urls.remove(0))
    }

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
            let url = first(spelling).expect(spelling);
            assert_eq!(url.as_str(), "http://localhost:8000/v1", "{spelling}");
        }
        let nested = first("https://box.lan/serve/a/").expect("a path of its own");
        assert_eq!(nested.as_str(), "https://box.lan/serve/a/v1");
        assert_eq!(join(&root(&nested), "/api/ps").as_str(), "https://box.lan/serve/a/api/ps");
    }

    #[test]
    fn an_address_is_also_taken_as_it_is() {
        for (spelling, expected) in [
            ("http://h/v1", &["/v1"][..]),
            ("http://h", &["/v1", "/"]),
            ("http://h/v3/", &["/v3/v1", "/v3"]),
            ("http://h/v3/chat/completions", &["/v3", "/v3/v1"]),
            ("http://h/api", &["/api/v1", "/api", "/v1"]),
            ("http://h/api/v1", &["/api/v1", "/v1"]),
        ] {
            let urls = candidates(spelling).expect(spelling);
            let paths: Vec<_> = urls.iter().map(Url::path).collect();
            assert_eq!(paths, expected, "{spelling}");
        }
        let models = join(&first("http://h/v3/models").expect("fine"), "/models");
        assert_eq!(models.as_str(), "http://h/v3/models");
        let root_of = |url: &str| root(&Url::parse(url).expect("a URL")).to_string();
        assert_eq!(root_of("http://h/v3"), "http://h/");
        assert_eq!(root_of("http://h/api"), "http://h/api");
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
            let error = first(spelling).expect_err(spelling).to_string();
            assert!(error.contains(reason), "{spelling}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
