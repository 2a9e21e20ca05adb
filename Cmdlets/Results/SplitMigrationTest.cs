using FCtrans.Client;

namespace FCtrans;

/// <summary>What a split migration would do, and whether it could: from Test-SplitMigration, which changes nothing.</summary>
public sealed class SplitMigrationTest
{
    internal SplitMigrationTest(SplitMigrationForecast forecast)
    {
        VM = forecast.Request.VmName;
        SourceHost = forecast.Request.Source.Name;
        MainHost = forecast.Request.MainHost.Name;
        SubHosts = [.. forecast.Request.SubHosts.Select(h => h.Name)];
        CanMigrate = forecast.CanMigrate;
        Checks = [.. forecast.Checks.Select(c => new SplitMigrationPrecondition(c))];
        GuestMemoryBytes = forecast.GuestMemoryBytes;
        UsedBytes = forecast.UsedBytes;
        UnusedMethod = forecast.UnusedMethod;
        BytesToMainHost = forecast.BytesToMainHost;
        BytesToSubHosts = [.. forecast.BytesToSubHosts];
        AssumedBytesPerSecond = forecast.AssumedBytesPerSecond;
        ExpectedSeconds = forecast.ExpectedSeconds;
        (LeastDowntimeMilliseconds, MostDowntimeMilliseconds) = forecast.ExpectedDowntimeMilliseconds;
    }

    /// <summary>The VM's name.</summary>
    public string VM { get; }

    /// <summary>Where it runs.</summary>
    public string SourceHost { get; }

    /// <summary>Where its processors would run.</summary>
    public string MainHost { get; }

    /// <summary>Where the rest of its memory would lie.</summary>
    public string[] SubHosts { get; }

    /// <summary>Whether every precondition holds.</summary>
    public bool CanMigrate { get; }

    /// <summary>Every precondition on every host.</summary>
    public IReadOnlyList<SplitMigrationPrecondition> Checks { get; }

    /// <summary>The guest's memory; 0 if the VM was not found.</summary>
    public ulong GuestMemoryBytes { get; }

    /// <summary>What the guest uses now: what would be sent at least.</summary>
    public ulong UsedBytes { get; }

    /// <summary>How that is known: <c>buddy</c>, <c>never-touched-only</c> or <c>off</c>.</summary>
    public string UnusedMethod { get; }

    /// <summary>Guest memory that would go to the main host.</summary>
    public ulong BytesToMainHost { get; }

    /// <summary>Guest memory that would go to each sub-host, in the order of <see cref="SubHosts"/>.</summary>
    public ulong[] BytesToSubHosts { get; }

    /// <summary>What the time is reckoned with: the bandwidth limit, or what a link of 10 Gbit/s carries.</summary>
    public double AssumedBytesPerSecond { get; }

    /// <summary>Seconds for all that is used, once.</summary>
    public double ExpectedSeconds { get; }

    /// <summary>Of an idle guest.</summary>
    public double LeastDowntimeMilliseconds { get; }

    /// <summary>What -MaxDowntime allows.</summary>
    public double MostDowntimeMilliseconds { get; }
}

/// <summary>One precondition of a split migration on one host.</summary>
public sealed class SplitMigrationPrecondition
{
    internal SplitMigrationPrecondition(SplitMigrationCheck check)
    {
        HostName = check.Host;
        Name = check.Name;
        Passed = check.Passed;
        Detail = check.Detail;
        Remedy = check.Remedy;
    }

    /// <summary>The host.</summary>
    public string HostName { get; }

    /// <summary>What was checked.</summary>
    public string Name { get; }

    /// <summary>Whether it holds.</summary>
    public bool Passed { get; }

    /// <summary>What was seen.</summary>
    public string Detail { get; }

    /// <summary>What to do if it does not hold.</summary>
    public string Remedy { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{HostName}: {Name} {(Passed ? "ok" : "FAILED")}";
}
