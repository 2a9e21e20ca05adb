using System.Collections;
using System.Globalization;
using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>A host as a parameter takes it: the object from Connect-KvmHost, or the name of a connected host.</summary>
public sealed class KvmHostReference
{
    private readonly KvmHost? _host;
    private readonly string _name = "";

    /// <summary>A host by its object.</summary>
    public KvmHostReference(KvmHost host)
    {
        _host = host;
        _name = host.Name;
    }

    /// <summary>A host and how much guest memory it may hold: <c>@{ KvmHost = 'sub1'; Memory = 64GB }</c>.</summary>
    /// <exception cref="ArgumentException">Another key, or no host.</exception>
    public KvmHostReference(Hashtable limited)
    {
        foreach (DictionaryEntry entry in limited)
        {
            object? value = entry.Value is PSObject wrapped ? wrapped.BaseObject : entry.Value;
            switch (entry.Key.ToString()?.ToUpperInvariant())
            {
                case "KVMHOST" or "NAME":
                    _host = value as KvmHost;
                    _name = _host?.Name ?? value?.ToString() ?? "";
                    break;
                case "MEMORY":
                    Limit = new MemorySize(Convert.ToString(value, CultureInfo.InvariantCulture) ?? "");
                    break;
                default:
                    throw new ArgumentException($"'{entry.Key}' means nothing for a host: give KvmHost and Memory, as in @{{ KvmHost = 'sub1'; Memory = 64GB }}.");
            }
        }

        if (string.IsNullOrEmpty(_name))
        {
            throw new ArgumentException("A host with a limit needs the host too: @{ KvmHost = 'sub1'; Memory = 64GB }.");
        }
    }

    /// <summary>The most guest memory that it may hold; null: what it has free.</summary>
    internal MemorySize? Limit { get; }

    /// <summary>A host by its name; looked up when it is used.</summary>
    public KvmHostReference(string name) => _name = name;

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <summary>Whether this is a name with wildcards.</summary>
    internal bool IsPattern => _host is null && WildcardPattern.ContainsWildcardCharacters(_name);

    /// <summary>The connected hosts that are meant: one, or all that a name with wildcards matches.</summary>
    /// <exception cref="FCtransException">HostNotConnected.</exception>
    internal KvmHost[] ResolveAll() =>
        IsPattern ? HostRegistry.Match(_name) : [Resolve()];

    /// <summary>The connected host.</summary>
    /// <exception cref="FCtransException">HostNotConnected.</exception>
    internal KvmHost Resolve()
    {
        KvmHost? host = _host ?? HostRegistry.Find(_name);
        return host is { IsDisconnected: false } ? host : throw Failure.HostNotConnected(_name);
    }
}
