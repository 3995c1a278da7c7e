//! The dashboard in a real browser, before the real daemon. `LB_BLESS=1` takes the pictures in docs/dashboard anew.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use lb_tests::{
    browser::{Browser, Screen, key},
    client::{Load, wait_for},
    daemon::Daemon,
    lab::{Arms, Lab, PORT, Return, VIP4, backend4},
    server::Server,
};

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
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dashboard"));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{name}.png"));
    browser.screenshot(&path).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 150_000, "{} has {size} bytes", path.display());
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
            std::net::TcpStream::connect_timeout(&to, Duration::from_millis(100)).unwrap_err();
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
    for net in ["10.78.0.0/24", "10.78.1.0/24", "10.78.2.0/24", "10.78.3.0/25", "10.78.3.128/26"] {
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
    picture(&browser, "thousand");

    // To the end of the list by scrolling, by the keyboard, and by filtering.
    browser.run("scrollTo(0, 10 ** 6)");
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
    picture(&browser, "help");
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
