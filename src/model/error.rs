//! Why a checkpoint cannot be used: one sentence each, with the file's name and what to do.

/// The model room's one error type.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that the checkpoint needs is not there.
    #[error("`{place}` has no {file}; {advice}.")]
    Missing {
        /// Folder or id.
        place: String,
        /// The file's name.
        file: String,
        /// What to do.
        advice: &'static str,
    },
    /// A file is there but is not what it should be.
    #[error("{file} in `{place}` cannot be used: {reason}.")]
    Wrong {
        /// Folder or id.
        place: String,
        /// The file's name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The name is neither a folder nor an id.
    #[error(
        "There is no folder `{0}`, and it is not a Hugging Face id like `facebook/musicgen-small`; name one of these, or `bundled`."
    )]
    NoSuchPlace(String),
    /// The hub could not be reached or does not have it.
    #[error(
        "`{id}` could not be downloaded ({reason}); check the name and the network, or put its files into a folder and name that."
    )]
    Download {
        /// The Hugging Face id.
        id: String,
        /// What the client said.
        reason: String,
    },
    /// This program has no bundled model.
    #[error(
        "This build has no bundled model; name one with --model, for example --model facebook/musicgen-small or --model ./folder."
    )]
    NotBundled,
    /// A weight is absent or has another shape.
    #[error("The weight `{name}` of the checkpoint does not fit: {reason}.")]
    Weight {
        /// Name in the Hugging Face layout.
        name: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// Input that the model cannot take.
    #[error("{0}")]
    Input(String),
    /// From the tensor library.
    #[error("The model could not be computed: {0}.")]
    Tensor(#[from] candle_core::Error),
}

/// A result with this room's error.
pub type Result<T> = std::result::Result<T, ModelError>;
