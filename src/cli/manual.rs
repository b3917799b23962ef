//! What a manual page says besides flags: signals, files, exit codes. roff, as man(7) has it.

/// The end of the pages of `uproar` and `uproar serve`.
pub const MANUAL: &str = r#".SH SIGNALS
.TP
.B SIGTERM
Drain and end: \fI/ready\fR answers 503 at once, viewers are served for \fBdrain_delay_ms\fR more and then closed
over \fBdrain_spread_ms\fR, or longer where \fBdrain_closes_per_sec\fR asks for it; the process ends when nobody is left,
at the latest after \fBdrain_deadline_ms\fR and as much as the closes take longer.
.TP
.B SIGINT
The same without the delay for load balancers.
.TP
.B SIGTERM \fRor\fB SIGINT\fR, a second time
End at once.
.TP
.B SIGHUP
Read the configuration again. What can change live does, all or nothing; what differs is logged. A file with
a mistake changes nothing: \fBuproar_config_last_reload_successful\fR is then 0, and so it is until every shard has it.
.TP
.B SIGABRT
From the watchdog of systemd, when a shard does not answer: a core dump says where it was stuck.
.SH FILES
.TP
.I /etc/uproar/uproar.toml
The configuration of the service. Every setting is in it, commented out, with its effect, unit, default and range.
.TP
.I /usr/lib/systemd/system/uproar.service
The service; \fBsystemctl edit uproar\fR changes it.
.TP
.I /usr/lib/systemd/system/uproar.socket
Only for ports under 1024.
.TP
.I /usr/share/uproar/tuning
What fits a host to the node: \fIapply\fR, \fIplacement\fR, \fIobservability\fR, \fIproxy\fR, \fIseccomp\fR.
.TP
.I /usr/share/doc/uproar
README.md (operation), PROTOCOL.md (clients), tuning/README.md (the host).
.SH ENVIRONMENT
.TP
.B UPROAR_CONFIG
The configuration file, where no \fB\-\-config\fR names one.
.TP
.B UPROAR_\fISETTING
Any setting, as in \fBUPROAR_LOG_LEVEL=debug\fR. Flags win over variables, variables over the file.
.TP
.BR NOTIFY_SOCKET ", " WATCHDOG_USEC ", " LISTEN_FDS ", " LISTEN_FDNAMES ", " FDSTORE
From the service manager: sd_notify(3), sd_listen_fds(3).
.SH EXIT STATUS
.TP
.B 0
Done; for \fBserve\fR: drained and ended after a signal.
.TP
.B 1
Failed; for \fBserve\fR: something that may be mended without the configuration, such as an address that the host does not
have yet, or a second signal; for \fBdoctor\fR: the target does not fit.
.TP
.B 2
A usage error.
.TP
.B 78
The configuration cannot work (EX_CONFIG); systemd does not try again.
.SH SEE ALSO
.BR systemctl (1),
.BR journalctl (1),
.BR systemd.service (5),
.BR systemd.socket (5)
"#;
