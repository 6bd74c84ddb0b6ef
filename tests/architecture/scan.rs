//! Sources as tokens: comments and strings cannot be mistaken for code, nor tests for what ships.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The tokens of a file in one row, delimiters included.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut row = Vec::new();
    flatten(text.parse().unwrap(), &mut row);
    row
}

fn flatten(stream: TokenStream, row: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let TokenTree::Group(group) = tree else {
            row.push(Token { text: tree.to_string(), line });
            continue;
        };
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => ("", ""),
        };
        row.push(Token { text: open.to_owned(), line });
        flatten(group.stream(), row);
        row.push(Token { text: close.to_owned(), line: group.span_close().start().line });
    }
}

/// The tokens without attributes, and without the items whose attribute says so.
pub(crate) fn without(row: &[Token], is_out: impl Fn(&str) -> bool) -> Vec<&Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < row.len() {
        match attribute(row, at) {
            None => {
                kept.push(&row[at]);
                at += 1;
            }
            Some((text, end)) if is_out(&text) => at = end_of_item(row, end),
            Some((_, end)) => at = end,
        }
    }
    kept
}

/// The attribute that begins here, and where it ends.
fn attribute(row: &[Token], at: usize) -> Option<(String, usize)> {
    let is = |at: usize, text: &str| row.get(at).is_some_and(|token| token.text == text);
    let open = at + if is(at + 1, "!") { 2 } else { 1 };
    if !is(at, "#") || !is(open, "[") {
        return None;
    }
    let end = closing(row, open);
    Some((row[open + 1..end].iter().map(|token| token.text.as_str()).collect(), end + 1))
}

/// Where an item ends that begins here: behind its `;` or its braces.
fn end_of_item(row: &[Token], mut at: usize) -> usize {
    while let Some(token) = row.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" => return closing(row, at) + 1,
            "(" | "[" => at = closing(row, at) + 1,
            _ => at += 1,
        }
    }
    at
}

/// Where what opens here closes.
fn closing(row: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in row.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    row.len()
}

/// The top-level modules that the paths of a file name, with the lines. `depth`: how deep its own module lies.
pub(crate) fn rooms(row: &[&Token], depth: usize) -> Vec<(String, usize)> {
    let mut named = Vec::new();
    // How deep in braces each inline module around here began.
    let (mut inline, mut braces) = (Vec::new(), 0);
    for (at, token) in row.iter().enumerate() {
        match token.text.as_str() {
            "{" => {
                braces += 1;
                if at >= 2 && row[at - 2].text == "mod" {
                    inline.push(braces);
                }
            }
            "}" => {
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
                braces -= 1;
            }
            "crate" | "super" if at == 0 || row[at - 1].text != ":" => {
                follow(row, at, depth + inline.len(), &mut named);
            }
            _ => {}
        }
    }
    named
}

/// Follows a path, or a tree of them, from a module that lies `level` deep. Returns where it ends.
fn follow(row: &[&Token], mut at: usize, mut level: usize, named: &mut Vec<(String, usize)>) -> usize {
    loop {
        let Some(token) = row.get(at) else { return at };
        match token.text.as_str() {
            "crate" => level = 0,
            "super" => level = level.saturating_sub(1),
            "self" => {}
            "{" => {
                at += 1;
                while let Some(token) = row.get(at).filter(|token| token.text != "}") {
                    at = match token.text.as_str() {
                        "," => at + 1,
                        "as" => at + 2,
                        _ => follow(row, at, level, named),
                    };
                }
                return at + 1;
            }
            name => {
                if level == 0 && name != "in" {
                    named.push((name.to_owned(), token.line));
                }
                level = usize::MAX;
            }
        }
        let goes_on = row.get(at + 1..at + 3).is_some_and(|next| next.iter().all(|token| token.text == ":"));
        if !goes_on {
            return at + 1;
        }
        at += 3;
    }
}
