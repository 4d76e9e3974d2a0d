//! Tests inside the database, one file per room of src/.
