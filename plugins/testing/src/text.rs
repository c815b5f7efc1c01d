//! Words for guests in WebAssembly text that do what no toolchain would have them do.
//!
//! Addresses in the first pages: descriptions at 64, answers at 512, data at 2,048, and whatever a guest wants from 4,096 on.

use crate::{ANSWER, Guest};

/// Imports `log` as `$log`.
pub const LOG: &str = "(import \"portcullis:policy/log@0.1.0\" \"write\" (func $log (param i32 i32 i32)))";
/// Imports `kv` as `$get`, `$set`, `$swap`, `$remove` and `$list`.
pub const KV: &str = "
    (import \"portcullis:policy/kv@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"set\" (func $set (param i32 i32 i32 i32 i32 i64 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"compare-and-set\"
        (func $swap (param i32 i32 i32 i64 i32 i32 i32 i64 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"remove\" (func $remove (param i32 i32 i32)))
    (import \"portcullis:policy/kv@0.1.0\" \"list\" (func $list (param i32 i32 i32 i32 i32 i32)))";
/// Imports `sessions` as `$session`, `$sessions`, `$count` and `$usage`.
pub const SESSIONS: &str = "
    (import \"portcullis:policy/sessions@0.1.0\" \"get\" (func $session (param i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"list\" (func $sessions (param i32 i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"count\" (func $count (param i32 i32 i32)))
    (import \"portcullis:policy/sessions@0.1.0\" \"usage\" (func $usage (param i32 i32 i32 i64 i32)))";
/// Imports `secrets` as `$hmac`.
pub const SECRETS: &str =
    "(import \"portcullis:policy/secrets@0.1.0\" \"hmac-sha256\" (func $hmac (param i32 i32 i32 i32 i32)))";
/// Imports `http` as `$send`: method, URL, headers, secret headers and body, each with its length, and where the answer goes.
pub const HTTP: &str = "(import \"portcullis:policy/http@0.1.1\" \"send\" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))";
/// Imports WASI's monotonic clock as `$ticks`, `$after` and `$at`, and waiting as `$block` and `$poll`.
pub const CLOCK: &str = "
    (import \"wasi:clocks/monotonic-clock@0.2.6\" \"now\" (func $ticks (result i64)))
    (import \"wasi:clocks/monotonic-clock@0.2.6\" \"subscribe-duration\" (func $after (param i64) (result i32)))
    (import \"wasi:clocks/monotonic-clock@0.2.6\" \"subscribe-instant\" (func $at (param i64) (result i32)))
    (import \"wasi:io/poll@0.2.6\" \"[method]pollable.block\" (func $block (param i32)))
    (import \"wasi:io/poll@0.2.6\" \"poll\" (func $poll (param i32 i32 i32)))";
/// Imports standard output as `$stdout`, `$write` and `$zeroes`.
pub const STDOUT: &str = "
    (import \"wasi:cli/stdout@0.2.6\" \"get-stdout\" (func $stdout (result i32)))
    (import \"wasi:io/streams@0.2.6\" \"[method]output-stream.write\" (func $write (param i32 i32 i32 i32)))
    (import \"wasi:io/streams@0.2.6\" \"[method]output-stream.write-zeroes\" (func $zeroes (param i32 i64 i32)))";

/// Leaves the address of an answer whose memory is all zeros: `allow`, an empty list, or nothing.
#[must_use]
pub fn zero() -> String {
    format!("i32.const {ANSWER}")
}

/// Where a [`Request`] begins that is sent from a guest, and everything that it names.
const REQUEST: u32 = 16_384;

/// A request as a guest in text sends it.
#[derive(Debug, Clone, Default)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The address.
    pub url: &'a str,
    /// Names and values.
    pub headers: &'a [(&'a str, &'a str)],
    /// Names, and names of secrets.
    pub secret_headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a str,
}

impl Request<'_> {
    /// The data that it needs, and a call that sends it with the answer at [`RESULT`].
    ///
    /// # Panics
    ///
    /// It is longer than memory can be.
    #[must_use]
    pub fn sent(&self) -> (String, String) {
        let mut memory = Vec::new();
        let mut keep = |bytes: &[u8]| {
            // Lists of pairs want their addresses aligned.
            memory.resize(memory.len().next_multiple_of(4), 0);
            let at = REQUEST + u32::try_from(memory.len()).expect("it fits into memory");
            memory.extend_from_slice(bytes);
            at
        };
        let length = |text: &str| u32::try_from(text.len()).expect("it fits into memory");
        let (method, url) = (keep(self.method.as_bytes()), keep(self.url.as_bytes()));
        let lists = [self.headers, self.secret_headers].map(|list| {
            let mut pairs = Vec::new();
            for text in list.iter().flat_map(|(name, value)| [name, value]) {
                pairs.extend([keep(text.as_bytes()), length(text)]);
            }
            let count = u32::try_from(list.len()).expect("it fits into memory");
            [keep(&bytes(&pairs)), count]
        });
        let body = keep(self.body.as_bytes());
        let words = [method, length(self.method), url, length(self.url)];
        let words: Vec<u32> =
            words.into_iter().chain(lists.concat()).chain([body, length(self.body), RESULT]).collect();
        let words: String = words.iter().map(|word| format!(" (i32.const {word})")).collect();
        (data(REQUEST, &memory), format!("(call $send{words})"))
    }
}

/// Does this for ever.
#[must_use]
pub fn for_ever(body: &str) -> String {
    format!("(loop $again {body} (br $again)) unreachable")
}

/// Does this so many times; `$i` counts.
#[must_use]
pub fn times(count: u32, body: &str) -> String {
    format!(
        "(local.set $i (i32.const 0))
        (loop $next
            {body}
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {count}))))"
    )
}

/// Leaves these words at [`ANSWER`] and its address on the stack.
#[must_use]
pub fn words(words: &[u32]) -> String {
    let store = |(index, word): (usize, &u32)| {
        format!("(i32.store offset={} (i32.const {ANSWER}) (i32.const {}))", index * 4, word.cast_signed())
    };
    let stores: String = words.iter().enumerate().map(store).collect();
    format!("{stores} i32.const {ANSWER}")
}

/// A gate that answers with these words.
#[must_use]
pub fn saying(answer: &[u32]) -> Guest {
    Guest::gate(&words(answer))
}

/// A guest whose functions of this interface have this body.
#[must_use]
pub fn exporting(interface: &'static str, functions: &[&str], params: &str, body: &str) -> Guest {
    let function = |function: &&str| {
        format!(
            "(func (export \"portcullis:policy/{interface}@0.1.0#{function}\") (param {params}) (result i32) {body})"
        )
    };
    Guest { exports: vec!["describe", interface], body: functions.iter().map(function).collect(), ..Guest::allowing() }
}

/// Data at an address, byte by byte.
#[must_use]
pub fn data(at: u32, bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{text}\")")
}

/// Words as bytes.
#[must_use]
pub fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A core module with one page of memory and exactly these exports.
#[must_use]
pub fn core(parts: &str) -> String {
    format!("(module (memory (export \"memory\") 1) {parts})")
}

/// `cabi_realloc` with this body.
#[must_use]
pub fn realloc(body: &str) -> String {
    format!(
        "(func (export \"cabi_realloc\") (param $old i32) (param $size i32) (param $align i32) (param $new i32)
            (result i32) {body})"
    )
}

/// `describe` with this body, which leaves the address of a description.
#[must_use]
pub fn describe(body: &str) -> String {
    format!("(func (export \"portcullis:policy/describe@0.1.0#describe\") (result i32) {body})")
}

/// `gate.before` with this body.
#[must_use]
pub fn before(body: &str) -> String {
    format!("(func (export \"portcullis:policy/gate@0.1.0#before\") (param $args i32) (result i32) {body})")
}

/// A description at address 64: a name, a version, and nothing else.
#[must_use]
pub fn description() -> String {
    let record = bytes(&[256, 5, 320, 1]);
    format!("{} (data (i32.const 256) \"guest\") (data (i32.const 320) \"1\")", data(64, &record))
}

/// Steps of a guest that expects the host to refuse each; it allows if all were, and else denies with the number of the first that was not.
#[derive(Default)]
pub struct Probe {
    body: String,
    steps: usize,
}

/// Where results of calls are left in a [`Probe`].
pub const RESULT: u32 = 1024;
/// The first error of the contract's imports: the binding does not grant the call.
pub const NOT_GRANTED: u32 = 0;
/// There is no such thing.
pub const NOT_FOUND: u32 = 1;
/// An argument breaks a bound.
pub const INVALID: u32 = 2;
/// Somebody else changed it.
pub const CONFLICT: u32 = 4;

impl Probe {
    /// A step that leaves whether it was right on the stack.
    ///
    /// # Panics
    ///
    /// There are more steps than can be counted.
    #[must_use]
    pub fn step(mut self, expression: &str) -> Self {
        let digit = DIGITS + u32::try_from(self.steps).expect("there are few steps");
        self.steps += 1;
        self.body.push_str(&format!(
            "(if (i32.eqz {expression}) (then
                (i32.store8 (i32.const {ANSWER}) (i32.const 1))
                (i32.store offset=8 (i32.const {ANSWER}) (i32.const {digit}))
                (i32.store offset=12 (i32.const {ANSWER}) (i32.const 1))
                (return (i32.const {ANSWER}))))"
        ));
        self
    }

    /// A call that leaves an error of the contract's at [`RESULT`], `payload` bytes behind the result's beginning.
    #[must_use]
    pub fn refused(self, call: &str, payload: u32, error: u32) -> Self {
        self.step(&format!(
            "(block (result i32)
                (i32.store (i32.const {RESULT}) (i32.const 0))
                {call}
                (i32.and
                    (i32.load8_u (i32.const {RESULT}))
                    (i32.eq (i32.load8_u offset={payload} (i32.const {RESULT})) (i32.const {error}))))"
        ))
    }

    /// The gate.
    ///
    /// # Panics
    ///
    /// There are more than 36 steps.
    #[must_use]
    pub fn gate(self, imports: &str) -> Guest {
        assert!(self.steps <= 36, "there are names for 36 steps");
        let digits = data(DIGITS, b"0123456789abcdefghijklmnopqrstuvwxyz");
        Guest::gate(&format!("{} i32.const {ANSWER}", self.body)).importing(imports).with(&digits)
    }
}

/// Where the names of steps lie.
const DIGITS: u32 = 1536;
