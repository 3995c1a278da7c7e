//! The dashboard in a real browser, before the real daemon. `LB_BLESS=1` takes the pictures in docs/dashboard anew.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::Duration,
};

use lb_tests::{
    browser::{Browser, Screen, key},
    client::{Load, wait_for},
    daemon::{Daemon, backend},
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    server::Server,
};
use lb_userspace::api::types::BackendStatus;

const MINUTE: Duration = Duration::from_secs(60);
const PAGE: &str = "http://127.0.0.1:8404/";

/// Three web servers, and a second service that none of its clients may reach.
fn yaml(dashboard: &str) -> String {
    let backends: String = (1..=3)
        .map(|n| format!("      - {{name: web{n}, address: \"{}:{PORT}\"}}\n", backend4(n)))
        .collect();
    format!(
        "dashboard: {dashboard}\nbackend_defaults: {{inter: 200ms, fastinter: 100ms, downinter: 200ms}}\nservices:\n  \
         - name: web\n    listen: {{address: 10.77.0.80, port: {PORT}}}\n    forward: nat\n    \
         check: {{type: http, path: /healthz}}\n    backends:\n{backends}  \
         - name: admin\n    listen: {{address: 10.77.0.80, port: 9000}}\n    forward: nat\n    allow: [192.0.2.0/24]\n    \
         backends:\n      - {{name: web1, address: \"{}:9000\"}}\n",
        backend4(1)
    )
}

/// A picture for the documentation, if they are to be taken anew.
fn picture(browser: &Browser<'_>, name: &str) {
    if std::env::var_os("LB_BLESS").is_none() {
        return;
    }
    if name != "service" {
        browser.wait("nothing covers it", "return document.querySelector('.toast') === null");
    }
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dashboard"));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{name}.png"));
    browser.screenshot(&path).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert!(size < 150_000, "{} has {size} bytes", path.display());
}

/// For pictures only: so many points of traffic, that lines are to be seen.
fn fill(browser: &Browser<'_>, points: usize) {
    if std::env::var_os("LB_BLESS").is_some() {
        let script = format!(
            "const line = document.querySelector('.tile .line, .plot .line'); \
             return (line?.getAttribute('d') ?? '').split('L').length >= {points}"
        );
        wait_for("lines are filled", 3 * MINUTE, || browser.run(&script), |full| *full == true);
    }
}

/// Texts on grounds that they do not stand out from (WCAG 2.2 AA), and things that are wider than the screen.
const HARD_TO_READ: &str = r#"
    const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    const parse = (colour) => {
      const numbers = colour.match(/[\d.]+/g).map(Number);
      const whole = colour.startsWith("color(") ? 1 : 255;
      return { rgb: numbers.slice(0, 3).map((value) => value / whole), alpha: numbers[3] ?? 1 };
    };
    const luminance = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
    const groundOf = (element) => {
      for (let one = element; one; one = one.parentElement) {
        const ground = parse(getComputedStyle(one).backgroundColor);
        if (ground.alpha === 1) return ground.rgb;
      }
      return [1, 1, 1];
    };
    const faults = [];
    let looked = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
      const style = getComputedStyle(element);
      const [text, ground] = [luminance(parse(style.color).rgb), luminance(groundOf(element))];
      const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
      looked += 1;
      if (contrast < 4.5) faults.push(`${contrast.toFixed(2)} : 1 "${walker.currentNode.data}"`);
    }
    if (looked < 20) faults.push(`only ${looked} texts were found`);
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (wide > 0) faults.push(`${wide} pixels too wide`);
    for (const element of document.querySelectorAll("button, a[href], input, select, [role=grid]")) {
      if (!element.checkVisibility() || element.closest(".skip")) continue;
      const named = element.getAttribute("aria-label") || element.innerText || element.labels?.length;
      if (!named) faults.push(`without a name: ${element.outerHTML.slice(0, 100)}`);
    }
    return faults;
"#;

#[track_caller]
fn readable(browser: &Browser<'_>, what: &str) {
    for screen in [Screen::Phone, Screen::Laptop] {
        browser.screen(screen);
        for dark in [true, false] {
            browser.prefer_dark(dark);
            let faults = browser.run(HARD_TO_READ);
            assert_eq!(faults, serde_json::json!([]), "{what}, {screen:?}, dark: {dark}");
        }
    }
}

/// The words of a row, by the key that it has in its grid.
fn row(name: &str) -> String {
    format!("[data-row=\"{name}\"]")
}

#[test]
fn every_view_is_true_while_a_backend_goes_and_comes_back() {
    let mut lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("127.0.0.1:8404")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let load =
        Load::start(&lab.client, &[SocketAddr::new(VIP4, PORT)], 4, Duration::from_millis(4));
    let browser = Browser::start(&lab.lb).unwrap();
    browser.open(PAGE);
    fill(&browser, 40);

    // All services.
    browser.wait_text(&row("web"), "web is shown", |text| {
        text.contains("UP") && text.contains("3 / 3")
    });
    browser.wait(
        "packets are seen",
        "return parseFloat(document.querySelector('.tile b').innerText) > 0",
    );
    assert_eq!(browser.text(".node-nics"), "lb0 native");
    assert!(browser.text(".strip").contains("revision 1"), "{}", browser.text(".strip"));
    assert_eq!(browser.count(".bar nav a[aria-current=page]"), 1);
    readable(&browser, "services");
    picture(&browser, "services");

    // A backend goes while one looks at its service, and comes back.
    browser.run("location.hash = '#/service/web'");
    for name in ["web1", "web2", "web3"] {
        browser.wait_text(&row(name), "a backend is shown", |text| {
            text.contains("UP") && text.contains("L7OK")
        });
    }
    readable(&browser, "service");
    lab.servers[1] = None;
    let down =
        browser.wait_text(&row("web2"), "web2 is shown as down", |text| text.contains("DOWN"));
    assert!(down.contains("L4CON"), "{down}");
    browser.wait_text("#toasts", "it is told", |text| text.contains("web/web2 is DOWN"));
    browser.wait("the title tells it, too", "return document.title.startsWith('▼ 1 down')");
    assert!(browser.text(".title").contains("2 of 3 backends"), "{}", browser.text(".title"));
    // Not by colour alone.
    assert!(browser.text(&format!("{} .badge", row("web2"))).starts_with('▼'));
    wait_for(
        "the event is in the list",
        MINUTE,
        || browser.text(".events"),
        |text| text.lines().any(|line| line.starts_with("backend_down")) && text.contains("L4CON"),
    );
    picture(&browser, "service");
    readable(&browser, "service with a backend that is down");
    lab.servers[1] = Some(lab.server(2).unwrap());
    browser.wait_text(&row("web2"), "web2 is shown as up", |text| {
        text.contains("UP") && text.contains("L7OK")
    });
    browser.wait_text("#toasts", "that is told, too", |text| text.contains("web/web2 is UP"));

    // Drops, with the packets that were dropped.
    browser.run("location.hash = '#/service/admin'");
    let refused = || {
        lab.client.run(|| {
            let to = "10.77.0.80:9000".parse().unwrap();
            TcpStream::connect_timeout(&to, Duration::from_millis(100)).unwrap_err();
            let socket = UdpSocket::bind("10.77.1.2:0").unwrap();
            // Whether it is sent does not matter: the next one will be.
            let _ = socket.send_to(b"anybody there?", "10.77.0.80:53");
        });
        browser.text(".reasons")
    };
    let explained =
        wait_for("the drop is explained", MINUTE, refused, |text| text.contains("TCP SYN"));
    assert!(explained.contains("not_allowed") && explained.contains("`allow`"), "{explained}");
    readable(&browser, "drops");

    // One backend.
    browser.run("location.hash = '#/service/web/web1'");
    browser.wait_text(".facts", "its facts", |text| text.contains(&backend4(1).to_string()));
    wait_for("its check", MINUTE, || browser.text(".panel .facts"), |text| text.contains("L7OK"));
    assert_eq!(browser.count(".controls:not([hidden])"), 0, "may be changed");
    browser.wait(
        "its chart has a line",
        "return document.querySelector('.plot .line').getAttribute('d').length > 40",
    );
    readable(&browser, "backend");
    browser.prefer_dark(true);
    picture(&browser, "backend-dark");
    browser.prefer_dark(false);

    // What has happened.
    browser.run("location.hash = '#/events'");
    browser.wait_text(".events", "the events", |text| text.contains("web/web2 is UP"));
    browser.keys("/backend_down");
    wait_for(
        "the filter works",
        MINUTE,
        || browser.text(".events"),
        |text| text.contains("web/web2 is DOWN") && !text.contains("web/web2 is UP"),
    );
    browser.keys(key::ESCAPE);
    readable(&browser, "events");
    picture(&browser, "events");

    // The node.
    browser.run("location.hash = '#/node'");
    browser.wait_text(".nics", "the NIC", |text| text.contains("native") && text.contains("lb0"));
    browser.wait_text(".reasons", "drops outside of services", |text| text.contains("no_service"));
    browser.wait_text(".tables", "the tables", |text| text.contains("pins_unconfirmed"));
    readable(&browser, "node");

    // On a phone, too.
    browser.screen(Screen::Phone);
    browser.run("location.hash = '#/'");
    browser.wait_text(&row("web"), "the card of web", |text| text.contains("3 / 3"));
    picture(&browser, "phone");
    browser.prefer_dark(true);
    browser.run("location.hash = '#/service/web'");
    browser.wait_text(&row("web1"), "the card of web1", |text| text.contains("UP"));
    browser.run("document.querySelector('.heading').scrollIntoView({block: 'start'})");
    picture(&browser, "phone-service-dark");

    assert_eq!(browser.complaints(), [""; 0]);
    let foreign: Vec<String> =
        browser.requests().into_iter().filter(|url| !url.starts_with(PAGE)).collect();
    assert_eq!(foreign, [""; 0], "asked elsewhere");
    assert!(load.finish().ok() > 0);
}

/// A thousand backends, of which some 20 do not answer: all of them on web1, behind routes.
#[test]
fn a_thousand_backends_are_some_rows() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 1).unwrap();
    lab.lb.ip(&format!("route add 10.78.0.0/16 via {}", backend4(1))).unwrap();
    for net in [
        "10.78.0.0/24",
        "10.78.1.0/24",
        "10.78.2.0/24",
        "10.78.3.0/25",
        "10.78.3.128/26",
        "10.78.3.192/27",
    ] {
        lab.backends[0].ip(&format!("route add local {net} dev lo")).unwrap();
    }
    let all = SocketAddr::from(([0, 0, 0, 0], 80));
    let _server = Server::start(&lab.backends[0], "all", &[all]).unwrap();
    let backends: String = (1..=1_000)
        .map(|n| {
            format!(
                "      - {{name: b{n:04}, address: \"10.78.{}.{}:80\"}}\n",
                n / 250,
                n % 250 + 1
            )
        })
        .collect();
    let yaml = format!(
        "dashboard: 127.0.0.1:8404\nbackend_defaults: {{inter: 5s, downinter: 5s, timeout: 2s, rise: 1, fall: 1}}\nservices:\n  \
         - name: shop\n    listen: {{address: 10.77.0.80, port: 80}}\n    forward: nat\n    check: {{type: http, path: /healthz}}\n    \
         backends:\n{backends}"
    );
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml).unwrap();
    daemon.start().unwrap();
    daemon.wait("most are up", MINUTE, |status| {
        let up = status.services[0].backends.iter().filter(|backend| backend.state == "UP").count();
        (950..1_000).contains(&up)
    });
    let load = Load::start(&lab.client, &[SocketAddr::new(VIP4, 80)], 4, Duration::from_millis(4));
    let browser = Browser::start(&lab.lb).unwrap();
    browser.open(&format!("{PAGE}#/service/shop"));
    browser.wait_text(".heading", "all are counted", |text| text.contains("1000"));
    browser.wait(
        "packets are seen",
        "return document.querySelectorAll('.grid .line[d*=L]').length > 0",
    );
    let rows = || browser.count(".grid .rows .row");
    assert!((5..80).contains(&rows()), "{} rows are in the page", rows());
    assert_eq!(browser.run("return document.querySelector('.grid').ariaRowCount"), "1001");
    // The worst comes first.
    assert!(browser.text(".grid .rows .row").contains("DOWN"));
    fill(&browser, 20);
    picture(&browser, "thousand");

    // To the end of the list by scrolling, by the keyboard, and by filtering.
    browser.run("document.querySelector('.grid').scrollIntoView({block: 'end'})");
    browser.wait(
        "the last row is there",
        "return document.querySelector('[aria-rowindex=\"1001\"]') !== null",
    );
    assert!((5..80).contains(&rows()), "{} rows are in the page", rows());
    browser.run("scrollTo(0, 0)");
    browser.keys(key::END);
    browser.wait_text(".row[aria-selected]", "the last is selected", |text| {
        text.contains("b1000") || text.contains("UP")
    });
    browser.wait(
        "it is in sight",
        "const box = document.querySelector('.row[aria-selected]').getBoundingClientRect(); \
         return box.top > 0 && box.bottom <= innerHeight",
    );
    browser.keys("/b0777");
    wait_for("one is left", MINUTE, rows, |rows| *rows == 1);
    assert!(
        browser.text(".grid .rows").contains("10.78.3.28:80"),
        "{}",
        browser.text(".grid .rows")
    );
    browser.keys(key::ESCAPE);
    wait_for("all are back", MINUTE, rows, |rows| *rows > 5);
    browser.run("document.querySelector('[role=columnheader].name button').click()");
    browser.wait(
        "sorted by name",
        "return document.querySelector('[aria-rowindex=\"2\"] .name').innerText === 'b0001'",
    );
    browser.run("document.querySelector('[role=columnheader].name button').click()");
    browser.wait(
        "and back",
        "return document.querySelector('[aria-rowindex=\"2\"] .name').innerText === 'b1000'",
    );
    readable(&browser, "a thousand backends");
    browser.screen(Screen::Phone);
    assert!((3..80).contains(&rows()), "{} cards are in the page", rows());
    assert_eq!(browser.complaints(), [""; 0]);
    drop(load);
}

#[test]
fn the_keyboard_is_enough() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("127.0.0.1:8404")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let browser = Browser::start(&lab.lb).unwrap();
    browser.open(PAGE);
    browser.wait_text(&row("web"), "web is shown", |text| text.contains("UP"));
    let focus =
        || browser.run("return document.activeElement.className || document.activeElement.tagName");
    let hash = || browser.run("return location.hash").as_str().unwrap_or_default().to_owned();
    let selected = || browser.text(".row[aria-selected] .name");
    let at = |wanted: &str| wait_for("the address", MINUTE, hash, |hash| hash == wanted);

    // Tab begins with the way past the bar, and the focus can be seen.
    browser.keys(key::TAB);
    assert_eq!(focus(), "skip");
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid");
    browser.keys(key::ENTER);
    assert_eq!(focus(), "MAIN");

    // Down to a backend and up again.
    browser.keys("/we");
    wait_for("one is left", MINUTE, || browser.count(".grid .rows .row"), |rows| *rows == 1);
    browser.keys(key::ENTER);
    assert_eq!(selected(), "web");
    assert_eq!(
        browser.run("return document.activeElement.getAttribute('aria-activedescendant') !== null"),
        true
    );
    browser.keys(key::ENTER);
    at("#/service/web");
    browser.wait_text(&row("web3"), "backends are shown", |text| text.contains("UP"));
    browser.keys("jj");
    assert_eq!(selected(), "web2");
    browser.keys(key::DOWN);
    assert_eq!(selected(), "web3");
    browser.keys("k");
    assert_eq!(selected(), "web2");
    browser.keys(key::ENTER);
    at("#/service/web/web2");
    browser.wait_text("h1", "the backend", |text| text == "web2");
    browser.keys(key::ESCAPE);
    at("#/service/web");
    browser.keys(key::ESCAPE);
    at("#/");

    // Views, help, colours.
    browser.keys("2");
    at("#/events");
    browser.keys("3");
    at("#/node");
    browser.keys("?");
    assert!(browser.text("dialog[open]").contains("filter the list"));
    browser.keys(key::ESCAPE);
    assert_eq!(browser.count("dialog[open]"), 0);
    let ground = || browser.run("return getComputedStyle(document.body).backgroundColor");
    browser.prefer_dark(true);
    let dark = ground();
    browser.keys("t");
    let light = ground();
    assert_ne!(dark, light, "light by hand");
    browser.prefer_dark(false);
    browser.keys("t");
    assert_eq!(ground(), dark, "dark by hand");
    // It is remembered.
    browser.open(PAGE);
    assert_eq!(ground(), dark);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_tells_that_the_daemon_is_away_and_goes_on_when_it_is_back() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("127.0.0.1:8404")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let browser = Browser::start(&lab.lb).unwrap();
    browser.open(PAGE);
    fill(&browser, 40);
    browser.wait_text("#live", "it is live", |text| text == "live");
    assert_eq!(browser.text("#away"), "");
    daemon.kill().unwrap();
    let told =
        browser.wait_text("#away", "the page tells it", |text| text.contains("does not answer"));
    assert!(told.contains("What you see is from"), "{told}");
    browser.wait_text("#live", "with the age", |text| text.starts_with("stale"));
    assert_eq!(browser.run("return document.body.classList.contains('stale')"), true);
    assert!(browser.text(&row("web")).contains("3 / 3"), "what was known is gone");
    picture(&browser, "away");
    daemon.start().unwrap();
    browser.wait_text("#live", "it is live again", |text| text == "live");
    assert_eq!((browser.text("#away").as_str(), browser.count("body.stale")), ("", 0));
    browser.keys("2");
    browser.wait_text(".events", "the new start", |text| {
        text.contains("adopted the loaded data plane")
    });
    // A daemon that hangs is away, too.
    let pid = daemon.pid().unwrap();
    lab.lb.sh(&format!("kill -STOP {pid}")).unwrap();
    browser.wait_text("#away", "the page tells that, too", |text| {
        text.contains("no answer within 5 s")
    });
    lab.lb.sh(&format!("kill -CONT {pid}")).unwrap();
    browser.wait_text("#live", "it is live once more", |text| text == "live");
}

/// One request as it is written; the answer's head (in small letters) and body. An empty answer is an error.
fn send(lab: &Lab, port: u16, request: String) -> std::io::Result<(String, String)> {
    lab.lb.run(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok((head.to_ascii_lowercase(), body.to_owned()))
    })
}

/// `METHOD /path` with headers beside a good `Host` (or another one), and the status that comes back.
#[track_caller]
fn ask(lab: &Lab, line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let host = match headers.iter().any(|header| header.starts_with("Host:")) {
        true => "",
        false => "Host: 127.0.0.1:8404\r\n",
    };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!(
        "{line} HTTP/1.1\r\n{host}{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let (head, body) = send(lab, 8404, request).unwrap();
    assert!(
        head.contains("content-security-policy: default-src 'none'; script-src 'self';"),
        "{head}"
    );
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(head.contains("cache-control: no-"), "{head}");
    assert!(!head.contains("access-control-"), "{head}");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("{head}")), body)
}

fn write_token(daemon: &Daemon<'_>, token: &str, mode: u32) -> PathBuf {
    let path = daemon.directory.join("dashboard.token");
    let aside = daemon.directory.join("dashboard.token.new");
    fs::write(&aside, token).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&aside, &path).unwrap();
    path
}

const TOKEN: &str = "correct-horse-battery-staple";
const SHOWN: &str = "Authorization: Bearer correct-horse-battery-staple";
const JSON: &str = "Content-Type: application/json";
const DRAIN: &str = "{\"admin\":\"drain\"}";
const POST: &str = "POST /api/backends/web/web1";

#[test]
fn s10_nobody_looks_or_changes_who_may_not() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, &yaml("127.0.0.1:8404")).unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let admin = |name: &str| backend(&daemon.status(), "web", name).unwrap().admin.clone();

    // Its address alone: this host may look, and only look.
    let listening = lab.lb.sh("ss -Hltn").unwrap();
    let addresses: Vec<&str> =
        listening.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
    assert_eq!(addresses, ["127.0.0.1:8404"], "{listening}");
    assert_eq!(ask(&lab, "GET /", &[], "").0, 200);
    let (status, body) = ask(&lab, "GET /api/status", &[], "");
    assert!(status == 200 && body.contains("web1"), "{status} {body}");
    for foreign in ["evil.example", "127.0.0.1.evil.example:8404", "", "lb"] {
        let host = format!("Host: {foreign}");
        for path in ["GET /", "GET /api/status", "GET /app.js", POST] {
            let (status, body) = ask(&lab, path, &[&host], "");
            assert_eq!(status, 403, "{path} for `{foreign}`: {body}");
        }
    }
    for host in ["localhost", "localhost:9999", "[::1]:8404", "192.0.2.1"] {
        assert_eq!(ask(&lab, "GET /api/status", &[&format!("Host: {host}")], "").0, 200, "{host}");
    }
    for foreign in
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://evil.example"]
    {
        assert_eq!(ask(&lab, "GET /api/events", &[foreign], "").0, 403, "{foreign}");
    }
    for change in [&[JSON][..], &[JSON, SHOWN], &[JSON, "Origin: http://127.0.0.1:8404"]] {
        let (status, body) = ask(&lab, POST, change, DRAIN);
        assert!(status == 403 && body.contains("dashboard.write"), "{status} {body}");
    }
    for other in ["POST /api/reload", "POST /v1/detach", "GET /v1/status", "GET /../etc/passwd"] {
        assert_eq!(ask(&lab, other, &[JSON], "{}").0, 404, "{other}");
    }
    for wrong in ["DELETE /", "PUT /api/status", "POST /api/status"] {
        assert_eq!(ask(&lab, wrong, &[], "").0, 405, "{wrong}");
    }
    assert_eq!(admin("web1"), "ready");

    // What would let others in is refused, with the place.
    let file = daemon.directory.join("dashboard.token").display().to_string();
    for (setting, place, word) in [
        ("0.0.0.0:8404".to_owned(), "1:12", "token_file"),
        ("{listen: 127.0.0.1:8404, write: true}".into(), "1:44", "token_file"),
        (format!("{{listen: 127.0.0.1:8404, token_file: {file}}}"), "1:49", "umask 077"),
    ] {
        daemon.write(&yaml(&setting)).unwrap();
        let output = daemon.lb(&["reload"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{setting}: {said}");
        assert!(said.contains(&format!("lb.yaml:{place}:")) && said.contains(word), "{said}");
    }
    write_token(&daemon, TOKEN, 0o644);
    let said = String::from_utf8(daemon.lb(&["reload"]).unwrap().stderr).unwrap();
    assert!(said.contains("lb.yaml:1:49:") && said.contains("chmod 600"), "{said}");
    assert_eq!(ask(&lab, "GET /api/status", &[], "").0, 200, "the last good one is in force");

    // With a token, and leave to change.
    write_token(&daemon, TOKEN, 0o600);
    daemon
        .write(&yaml(&format!(
            "{{listen: 127.0.0.1:8404, token_file: {file}, write: true, hosts: [lb.example]}}"
        )))
        .unwrap();
    daemon.must(&["reload"]);
    let (status, body) = ask(&lab, "GET /api/status", &[], "");
    assert!(status == 401 && !body.contains("web1"), "{status} {body}");
    assert_eq!(
        ask(&lab, "GET /api/status", &["Authorization: Bearer correct-horse-battery-stapl"], "").0,
        401
    );
    assert_eq!(ask(&lab, "GET /api/status", &[SHOWN], "").0, 200);
    assert_eq!(ask(&lab, "GET /api/status", &[SHOWN, "Host: lb.example"], "").0, 200);
    for (headers, wanted) in [
        (&[JSON][..], 401),
        (&[SHOWN], 403),
        (&[SHOWN, "Content-Type: text/plain"], 403),
        (&[SHOWN, JSON, "Origin: http://evil.example"], 403),
        (&[SHOWN, JSON, "Sec-Fetch-Site: cross-site"], 403),
        (&[SHOWN, JSON, "Host: evil.example"], 403),
    ] {
        assert_eq!(ask(&lab, POST, headers, DRAIN).0, wanted, "{headers:?}");
    }
    assert_eq!(admin("web1"), "ready");
    assert_eq!(ask(&lab, POST, &[SHOWN, JSON], "{\"admin\":\"boom\"}").0, 400);
    assert_eq!(ask(&lab, "POST /api/backends/web/wbe1", &[SHOWN, JSON], DRAIN).0, 404);
    assert_eq!(ask(&lab, POST, &[SHOWN, JSON], DRAIN).0, 200);
    assert_eq!(admin("web1"), "drain");

    // Another token is in force without a reload, and one that others can read lets nobody in.
    write_token(&daemon, "another-token-of-some-length", 0o600);
    let status = |headers: &[&str]| ask(&lab, "GET /api/status", headers, "").0;
    wait_for("the old token is void", MINUTE, || status(&[SHOWN]), |status| *status == 401);
    assert_eq!(status(&["Authorization: Bearer another-token-of-some-length"]), 200);
    write_token(&daemon, TOKEN, 0o644);
    daemon.wait("it is told", MINUTE, |status| {
        status.warnings.iter().any(|warning| warning.contains("chmod 600"))
    });
    assert!(
        send(&lab, 8404, String::new()).is_err(),
        "it listens with a token that others can read"
    );
    assert!(!daemon.log().contains("correct-horse"), "the token is in the log");
}

#[test]
fn with_the_token_backends_are_changed_from_the_page() {
    let lab = Lab::new(Arms::One, Return::ThroughLb, 3).unwrap();
    let mut daemon = Daemon::new(&lab.lb, &lab.nics, "").unwrap();
    let file = write_token(&daemon, &format!("{TOKEN}\n"), 0o400).display().to_string();
    daemon
        .write(&yaml(&format!("{{listen: 127.0.0.1:8404, token_file: {file}, write: true}}")))
        .unwrap();
    daemon.start().unwrap();
    daemon.wait_ready(&["UP", "NOLB"]);
    let browser = Browser::start(&lab.lb).unwrap();
    browser.open(&format!("{PAGE}#/service/web/web1"));

    // Nothing is shown before the token is, and it is kept for the tab alone.
    browser.wait_text("dialog[open]", "it asks", |text| text.contains("dashboard.token_file"));
    assert!(!browser.text("body").contains("web1"));
    browser.keys(&format!("not-the-token-at-all{}", key::ENTER));
    browser.wait_text("dialog[open]", "it asks again", |text| text.contains("not the token"));
    browser.keys(&format!("{TOKEN}{}", key::ENTER));
    browser.wait_text("h1", "the backend is shown", |text| text == "web1");
    assert_eq!(browser.run("return sessionStorage.getItem('lb.token')"), TOKEN);
    assert_eq!(browser.run("return JSON.stringify(localStorage).includes('horse')"), false);
    assert!(
        !browser.requests().iter().any(|url| url.contains("horse")),
        "the token is in an address"
    );

    // Buttons do what `lb drain` and its like do.
    browser.wait("it may be changed", "return !document.querySelector('.controls').hidden");
    let state = |what: &str, good: &dyn Fn(&BackendStatus) -> bool| {
        daemon.wait(what, MINUTE, |status| backend(status, "web", "web1").is_some_and(good));
    };
    browser.click(".controls button:nth-of-type(2)");
    state("web1 drains", &|web1| web1.admin == "drain");
    browser.wait_text(".title .badge", "the page shows it", |text| text.contains("DRAIN"));
    browser.wait_text(".events", "with its cause", |text| {
        text.contains("the dashboard, from 127.0.0.1")
    });
    readable(&browser, "a backend that may be changed");
    browser.run(
        "document.querySelector('#weight').focus(); document.querySelector('#weight').select()",
    );
    browser.keys(&format!("25{}", key::ENTER));
    state("the weight is set", &|web1| web1.weight == 25);
    // Taking out ends connections: it asks first.
    browser.click(".controls button:nth-of-type(3)");
    assert!(browser.text("dialog[open]").contains("loses it"));
    browser.keys(key::ESCAPE);
    assert_eq!(browser.count("dialog[open]"), 0);
    state("nothing has changed", &|web1| web1.admin == "drain");
    browser.click(".controls button:nth-of-type(3)");
    browser.click("dialog .danger");
    state("web1 is out", &|web1| web1.admin == "maint");
    browser.click(".controls button:nth-of-type(1)");
    state("web1 is back", &|web1| web1.admin == "ready");
    browser.wait_text(".title .badge", "the page shows that, too", |text| text.contains("UP"));

    // A token that was changed locks the page.
    write_token(&daemon, "another-token-of-some-length", 0o600);
    browser.wait_text("dialog[open]", "it asks once more", |text| text.contains("token"));
    browser.keys(&format!("another-token-of-some-length{}", key::ENTER));
    browser.wait_text("#live", "and goes on", |text| text == "live");
}
