//! Parts of texts that others wrote and that are too long to be read, with what is left out and where it is.

/// So many bytes of one text are shown.
const MOST: usize = 8 * 1024;

/// For what is said around a text that was cut before.
const AROUND: usize = 1024;

/// The beginning; `rest` says where all of it is.
pub(crate) fn beginning_of(text: &str, rest: &str) -> String {
    if text.len() <= MOST + AROUND {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MOST);
    format!("{} … and {} bytes more{rest}", &text[..end], text.len() - end)
}

/// The end of an error, because that says what went wrong; `rest` says where all of it is.
pub(crate) fn end_of(error: &str, rest: &str) -> String {
    if error.len() <= MOST + AROUND {
        return error.to_owned();
    }
    let start = error.ceil_char_boundary(error.len() - MOST);
    format!("({start} bytes before this are left out{rest})\n{}", &error[start..])
}
