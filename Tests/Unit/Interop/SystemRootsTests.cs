using System.Diagnostics;
using FCtrans.Agent.Interop;
using Xunit;

namespace FCtrans.Unit.Tests.Interop;

public sealed class SystemRootsTests
{
    private const string Variable = "SSL_CERT_DIR";

    [Fact]
    public void A_worker_finds_none_and_what_it_starts_finds_the_hosts()
    {
        var start = new ProcessStartInfo("true");
        start.Environment.Remove(Variable);
        SystemRoots.HideFrom(start);
        Assert.False(Path.Exists(start.Environment[Variable]));
        SystemRoots.ShowTo(start);
        Assert.False(start.Environment.ContainsKey(Variable));
    }

    [Fact]
    public void Where_somebody_has_said_where_they_are_that_holds_for_both()
    {
        var start = new ProcessStartInfo("true");
        start.Environment[Variable] = "/etc/ssl/own";
        SystemRoots.HideFrom(start);
        SystemRoots.ShowTo(start);
        Assert.Equal("/etc/ssl/own", start.Environment[Variable]);
    }
}
