using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>A host as a parameter takes it: the object from Connect-KvmHost, or the name of a connected host.</summary>
public sealed class KvmHostReference
{
    private readonly KvmHost? _host;
    private readonly string _name;

    /// <summary>A host by its object.</summary>
    public KvmHostReference(KvmHost host)
    {
        _host = host;
        _name = host.Name;
    }

    /// <summary>A host by its name; looked up when it is used.</summary>
    public KvmHostReference(string name) => _name = name;

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <summary>The connected hosts that are meant: one, or all that a name with wildcards matches.</summary>
    /// <exception cref="FCtransException">HostNotConnected.</exception>
    internal KvmHost[] ResolveAll() =>
        _host is null && WildcardPattern.ContainsWildcardCharacters(_name) ? HostRegistry.Match(_name) : [Resolve()];

    /// <summary>The connected host.</summary>
    /// <exception cref="FCtransException">HostNotConnected.</exception>
    internal KvmHost Resolve()
    {
        KvmHost? host = _host ?? HostRegistry.Find(_name);
        return host is { IsDisconnected: false } ? host : throw Failure.HostNotConnected(_name);
    }
}
