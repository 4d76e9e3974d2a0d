# The files of the extension alone, for an image volume: PostgreSQL 18 finds them by extension_control_path and
# dynamic_library_path (CloudNativePG mounts such an image below /extensions).
FROM scratch
COPY lib /lib
COPY share /share
